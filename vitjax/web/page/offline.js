// Starts the service worker, which keeps the files and allows threads.

const TRIED = "vitjax tried threads";
const PATIENCE = 5000; // milliseconds

// Returns whether the page is loading again, this time through the worker.
export async function keepOffline() {
  if (!navigator.serviceWorker) return false;
  if (navigator.serviceWorker.controller) {
    // A new page has been published: the old files do not fit its own.
    navigator.serviceWorker.addEventListener("controllerchange", () =>
      location.reload(),
    );
  }
  try {
    // Always asks the server whether the list of files has changed.
    const options = {updateViaCache: "none"};
    await navigator.serviceWorker.register("service_worker.js", options);
  } catch {
    return false; // such as in a private window: no threads, nothing kept
  }
  await controlled();
  if (self.crossOriginIsolated || sessionStorage.getItem(TRIED)) return false;
  if (!navigator.serviceWorker.controller) return false;
  sessionStorage.setItem(TRIED, "yes");
  location.reload();
  return true;
}

function controlled() {
  if (navigator.serviceWorker.controller) return Promise.resolve();
  return new Promise((resolve) => {
    navigator.serviceWorker.addEventListener("controllerchange", resolve);
    setTimeout(resolve, PATIENCE);
  });
}
