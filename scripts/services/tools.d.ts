interface Kind {
  readonly file: string | undefined
  readonly needs: 'apt'
  readonly package: string
}
export const kinds: Readonly<Record<'zsh' | 'fish' | 'faketime', Kind>>
export function shell(name: string): string | undefined
export function faketime(): string | undefined
