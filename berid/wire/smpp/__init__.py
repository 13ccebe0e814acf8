"""SMPP 3.4, both sides: names (codes), PDUs (pdu), the conversation (session), receipts, user data headers."""
