"""Every gradient twice: by hand in NumPy (`gradtwin.manual`), by PyTorch (`gradtwin.reference`),
and compared."""

__version__ = "0.1.0"
