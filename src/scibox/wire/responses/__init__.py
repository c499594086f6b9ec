"""The Responses API: requests to chat calls, chat answers back to responses."""
