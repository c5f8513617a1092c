"""Requests to addresses that users have named: checked before they are sent, so that none reaches an internal service.

    targets   which URLs and which network addresses may be called
    sender    one POST to such a URL, bound to the addresses that were checked

What is sent is in `service.domain.webhook`, when it is sent in `service.operations.webhook_deliveries`.
"""
