"""The way of a request to the engines and of their answers back; knows no wire model of the API and no adapter."""
