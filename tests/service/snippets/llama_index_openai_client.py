from llama_index.embeddings.openai_like import OpenAILikeEmbedding

embedding = OpenAILikeEmbedding(
    model_name="bge-m3",
    api_base="http://127.0.0.1:11435/v1",
    api_key="not needed on this machine",
)
vectors = embedding.get_text_embedding_batch(["first text", "second text"])
