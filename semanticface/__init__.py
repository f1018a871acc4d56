"""A face picture in, 52 ARKit blendshape coefficients and a readable account of which muscles moved out."""

import logging
import os

# Before any Hugging Face library or Gradio reads them: nothing about a face or a run is sent anywhere.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# Before torch loads OpenMP: threads that wait for each other sleep. By default they spin, a little quicker on an idle
# machine, and several times slower as soon as a browser or another program wants a core too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# At import bitsandbytes, which peft imports, asks for a package that would fetch code from the hub.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__version__ = "0.1.0"
