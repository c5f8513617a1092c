"""Requests to the engines and their responses; uses no wire model of the API and no adapter."""
