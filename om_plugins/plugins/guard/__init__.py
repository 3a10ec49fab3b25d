"""The guard around calls into plugins: what their exceptions say."""
