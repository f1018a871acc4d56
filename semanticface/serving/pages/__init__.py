"""The two Gradio pages: the demo and the annotation of choices."""
