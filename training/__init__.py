"""What a training run needs beside the lesson in train.py: how it is saved, watched, shared out, and computed fast on a CPU."""
