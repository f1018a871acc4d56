"""A face picture in, 52 ARKit blendshape coefficients and a readable account of which muscles moved out."""

import logging
import os

# Before any Hugging Face library or Gradio reads them: nothing about a face or a run is sent anywhere.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# At import bitsandbytes, which peft imports, asks for a package that would fetch code from the hub.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__version__ = "0.1.0"
