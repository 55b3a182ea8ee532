"""The addresses of the API: each route translates a request into a read or a submission, and decides
nothing.
"""
