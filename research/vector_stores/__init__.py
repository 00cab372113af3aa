"""What each vector store costs, and what shorter or coarser vectors lose."""
