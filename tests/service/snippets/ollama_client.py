from ollama import Client

client = Client(host="http://127.0.0.1:11435")
vectors = client.embed(model="bge-m3", input=["first text", "second text"]).embeddings
