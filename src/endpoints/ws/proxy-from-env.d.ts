declare module 'proxy-from-env' {
  /** The proxy for a URL as the environment says it; empty: none. */
  export function getProxyForUrl(url: string | URL): string
}
