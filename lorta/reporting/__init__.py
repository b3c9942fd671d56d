"""Tables, figures and the report page, made of records. Imports analysis, planning and below."""
