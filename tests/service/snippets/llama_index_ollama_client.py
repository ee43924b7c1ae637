from llama_index.embeddings.ollama import OllamaEmbedding

embedding = OllamaEmbedding(model_name="bge-m3", base_url="http://127.0.0.1:11435")
vectors = embedding.get_text_embedding_batch(["first text", "second text"])
