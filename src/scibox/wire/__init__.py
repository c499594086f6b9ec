"""The OpenAI dialect: JSON and SSE to and from core types, for both roles. Pure."""
