"""Child processes that answer (llama.cpp, the embedder, the fake) and the supervisor of each."""
