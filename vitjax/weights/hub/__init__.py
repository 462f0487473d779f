"""Models of the Hugging Face hub, by the name "hf:OWNER/REPO[@REVISION]".

`repository` fetches files into the cache of huggingface_hub and verifies them.
`config.json` decides what the weights are of: `timm` and `transformers` read
its two forms, and refuse what they do not know. `pushing` uploads a model.
"""
