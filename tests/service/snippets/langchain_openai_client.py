from langchain_openai import OpenAIEmbeddings

embeddings = OpenAIEmbeddings(
    model="bge-m3",
    base_url="http://127.0.0.1:11435/v1",
    api_key="not needed on this machine",
    check_embedding_ctx_length=False,  # else it sends token ids of another model's tokenizer
)
vectors = embeddings.embed_documents(["first text", "second text"])
