import httpx
from openai import ConflictError, OpenAI

gateway = "http://127.0.0.1:11435"
fingerprint = httpx.get(f"{gateway}/fingerprint").json()["digest"]  # null before its first load
client = OpenAI(
    base_url=f"{gateway}/v1",
    api_key="not needed on this machine",
    default_headers={"X-Embedctl-Fingerprint": fingerprint},
)
try:
    answer = client.embeddings.create(model="bge-m3", input=["first text", "second text"])
    vectors = [item.embedding for item in answer.data]
except ConflictError as refused:  # another model, backend or precision answers now
    print(refused.message)
