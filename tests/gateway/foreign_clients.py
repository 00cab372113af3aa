"""Runs in the environment of LangChain's and Haystack's clients. Prints what they make of the gateway, as JSON.

python foreign_clients.py URL LIBRARY
"""

import json
import sys
from typing import Any

QUERY = "red dress"
DOCUMENTS = ["Leather belt", "Red summer dress", "Blue dress"]


def langchain(url: str) -> dict[str, Any]:
    from langchain_cohere import CohereRerank  # noqa: PLC0415
    from langchain_openai import OpenAIEmbeddings  # noqa: PLC0415

    embeddings = OpenAIEmbeddings(
        model="querylife", base_url=f"{url}/v1", api_key="none", check_embedding_ctx_length=False
    )
    reranker = CohereRerank(model="querylife", base_url=url, cohere_api_key="none", top_n=2)
    ranking = reranker.rerank(DOCUMENTS, QUERY)
    return {"vector": embeddings.embed_query(QUERY), "ranking": [result["index"] for result in ranking]}


def haystack(url: str) -> dict[str, Any]:
    from haystack import Document  # noqa: PLC0415
    from haystack.components.embedders import OpenAITextEmbedder  # noqa: PLC0415
    from haystack.utils import Secret  # noqa: PLC0415
    from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker  # noqa: PLC0415

    none = Secret.from_token("none")
    embedder = OpenAITextEmbedder(api_key=none, model="querylife", api_base_url=f"{url}/v1")
    ranker = HuggingFaceTEIRanker(url=url, token=none, top_k=2)
    documents = [Document(content=text) for text in DOCUMENTS]
    ranking = ranker.run(query=QUERY, documents=documents)["documents"]
    found = [DOCUMENTS.index(document.content) for document in ranking]
    return {"vector": embedder.run(QUERY)["embedding"], "ranking": found}


if __name__ == "__main__":
    print(json.dumps({"langchain": langchain, "haystack": haystack}[sys.argv[2]](sys.argv[1])))
