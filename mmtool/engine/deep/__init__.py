"""What a trained model answers when modalities are taken from it, measured for diagnosis."""
