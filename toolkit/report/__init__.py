"""KPIs and predictions become tables, figures and HTML."""
