"""Anthropic's Messages API: requests to chat calls, chat answers back to messages."""
