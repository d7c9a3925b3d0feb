"""The page: gradio only. It turns what a person sets into tasks and follows their jobs; it never makes video itself."""
