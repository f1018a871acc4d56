"""Pixels in: image files, video, webcam, face detection, tracking and crops."""
