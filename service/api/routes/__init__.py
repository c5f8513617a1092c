"""One file per noun of the API: parse the request, call one operation, render the response."""
