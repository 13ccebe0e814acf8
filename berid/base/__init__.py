"""Facts without product words: time, ids, money, numbers, text, secrets. Imports nothing of ours."""
