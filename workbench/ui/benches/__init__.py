"""The five benches; each module is imported when its bench is first shown."""
