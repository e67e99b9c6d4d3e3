"""Laws whose response is not the loss against N and D: accuracy, coverage, reward, tuned settings."""
