from langchain_ollama import OllamaEmbeddings

embeddings = OllamaEmbeddings(model="bge-m3", base_url="http://127.0.0.1:11435")
vectors = embeddings.embed_documents(["first text", "second text"])
