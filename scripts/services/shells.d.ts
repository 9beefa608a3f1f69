export const kinds: Readonly<Record<'zsh' | 'fish', { readonly file: string | undefined; readonly needs: 'apt'; readonly package: string }>>
export function shell(name: string): string | undefined
