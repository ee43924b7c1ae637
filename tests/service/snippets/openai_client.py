from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:11435/v1", api_key="not needed on this machine")
answer = client.embeddings.create(model="bge-m3", input=["first text", "second text"])
vectors = [item.embedding for item in answer.data]
