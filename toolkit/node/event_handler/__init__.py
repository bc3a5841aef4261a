"""The Arrowhead Event Handler: HTTP publish, SSE or callback subscribe; modes direct, enhanced and original."""
