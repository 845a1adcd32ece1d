"""How does one store deal with customers and money? Gates, prices, payments, receipts and mail around its engine."""
