from semanticface.data.faces import load_faces as load_faces
from semanticface.inference.predictor import Prediction as Prediction
from semanticface.inference.predictor import Predictor as Predictor
from semanticface.rendering import render as render
from semanticface.semantics.analysis import describe as describe

__version__: str
