from semanticface.data.faces import load_faces as load_faces
from semanticface.inference.predictor import Prediction as Prediction
from semanticface.inference.predictor import Predictor as Predictor
from semanticface.rendering import render as render
from semanticface.semantics.analysis import describe as describe
from semanticface.semantics.text_pose import coefficients_from_text as coefficients_from_text

__version__: str
