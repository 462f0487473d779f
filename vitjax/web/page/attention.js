// The attention rollout over the image: what the model does not look at is dark.

const DARK = 0.7;

// The part of the image that the model sees, [left, top, width, height] in
// pixels, after the ops [name, size] of its preprocessing.
export function cropOf(ops, width, height) {
  let crop = [0, 0, width, height];
  let size = [height, width]; // after the ops so far
  for (const [name, value] of ops) {
    if (name === "resize") {
      size = pair(value);
    } else if (name === "resize_small") {
      const shorter = Math.min(...size);
      size = size.map((x) => Math.round((x * value) / shorter));
    } else {
      const [rows, columns] = pair(value ?? Math.min(...size));
      const [left, top, w, h] = crop;
      const [part, share] = [columns / size[1], rows / size[0]];
      crop = [
        left + (w * (1 - part)) / 2,
        top + (h * (1 - share)) / 2,
        w * part,
        h * share,
      ];
      size = [rows, columns];
    }
  }
  return crop;
}

export function drawAttention(canvas, {values, size: [rows, columns]}, crop) {
  const [least, largest] = [Math.min(...values), Math.max(...values)];
  const map = new OffscreenCanvas(columns, rows);
  const pixels = new ImageData(columns, rows);
  values.forEach((x, i) => {
    const share = (x - least) / (largest - least || 1);
    pixels.data[4 * i + 3] = 255 * DARK * (1 - share);
  });
  map.getContext("2d").putImageData(pixels, 0, 0);
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = `rgb(0 0 0 / ${DARK})`;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.clearRect(...crop);
  context.imageSmoothingQuality = "high";
  context.drawImage(map, ...crop);
}

function pair(size) {
  return Array.isArray(size) ? size : [size, size];
}
