"""The student of a finished run as files for other programs: weights, exported networks, a model card, the Hugging Face Hub."""
