"""``aitrail package``: a function's zip with only what its sources and destinations import, the same bytes every time.

``closure`` says which modules and distributions that is, ``wheels`` fetches the distributions for the platform that
the function runs on, ``tree`` lays out and trims the files, ``archive`` writes the zip, ``sbom`` says what is in it.
"""
