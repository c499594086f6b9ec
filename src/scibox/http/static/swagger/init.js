// Starts Swagger UI. In a file of its own because the page's content security policy allows no inline script.
"use strict";

window.addEventListener("load", () => {
  SwaggerUIBundle({
    dom_id: "#swagger-ui",
    url: "openapi.json",
    validatorUrl: null, // no badge: it would send the address of the service to another host
    persistAuthorization: true, // the secret stays in this browser's local storage until "Logout"
    tryItOutEnabled: true,
    displayRequestDuration: true,
    deepLinking: true,
    docExpansion: "list",
  });
});
