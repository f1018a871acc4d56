"""Image files, video, webcam, face detection, tracking and crops."""
