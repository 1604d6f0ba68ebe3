"""Verifies recorded reports and statements offline, with nothing but public keys.

This room depends on no other part of gpuping: the formats are written down in docs/verify.md, and
what is here was written from that page, so that somebody else can audit it, or write it again in
another language. It uses PyNaCl for Ed25519 and, for Parquet, DuckDB.
"""
