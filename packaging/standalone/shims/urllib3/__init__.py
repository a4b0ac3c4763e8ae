"""What the official client's login takes from urllib3: the header for user and password."""

import base64


class util:  # noqa: N801 - it is a module there
    """urllib3.util."""

    @staticmethod
    def make_headers(basic_auth: str) -> dict[str, str]:
        """The header `authorization` for USER:PASSWORD."""
        return {"authorization": f"Basic {base64.b64encode(basic_auth.encode()).decode()}"}
