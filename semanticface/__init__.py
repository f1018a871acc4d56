"""A face picture in, 52 ARKit blendshape coefficients and a readable account of which muscles moved out."""

__version__ = "0.1.0"
