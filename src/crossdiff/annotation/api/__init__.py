"""Annotators behind a `/v1/messages` server: requests, ledger, batches, prices, conversations."""
