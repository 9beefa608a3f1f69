/**
 * Makes completion scripts from the declarations. They complete commands, flags, schemes after --from and --to, and the
 * options of the endpoint that is being typed.
 */
import type { AnyEndpoint, Role, Spec } from './define'
import { hasRole, kebab, specOf } from './names'

export const SHELLS = ['bash', 'zsh', 'fish'] as const
export type Shell = (typeof SHELLS)[number]

export function completionScript(
  shell: Shell,
  registry: readonly AnyEndpoint[],
  flagSpec: Spec,
  commands: readonly string[],
): string {
  const flags = ['--from', '--to', ...Object.keys(flagSpec).map((key) => `--${kebab(key)}`)]
  const starts = (role: Role): string =>
    registry
      .filter((endpoint) => endpoint[role] !== undefined)
      .flatMap((endpoint) =>
        endpoint.schemes.map((scheme) =>
          endpoint.form === 'hierarchical' ? `${scheme}://` : (endpoint.shorthand ?? `${scheme}:`),
        ),
      )
      .join(' ')
  const cases = registry.flatMap((endpoint) =>
    (['source', 'sink'] as const)
      .filter((role) => endpoint[role] !== undefined)
      .map((role) => ({
        pattern: endpoint.schemes.map((scheme) => `${role}:${scheme}`),
        words: optionWords(endpoint, role),
      })),
  )
  switch (shell) {
    case 'bash':
      return bash(commands, flags, starts, cases)
    case 'zsh':
      return zsh(commands, flags, starts, cases)
    case 'fish':
      return fish(commands, flags, starts, cases)
  }
}

interface Case {
  readonly pattern: readonly string[]
  readonly words: readonly string[]
}

function optionWords(endpoint: AnyEndpoint, role: Role): readonly string[] {
  return Object.entries(specOf(endpoint))
    .filter(([, option]) => hasRole(option, role))
    .flatMap(([key, option]) => {
      const name = kebab(key)
      if (option.kind === 'flag') return [name]
      if (option.kind === 'map') return [`${name}.`]
      return option.values === undefined ? [`${name}=`] : option.values.map((value) => `${name}=${value}`)
    })
}

/**
 * The script splits the line at blanks, because bash itself splits words at `:` and `=` as well. The part before the
 * last `:` or `=` is therefore removed from the answers.
 */
function bash(
  commands: readonly string[],
  flags: readonly string[],
  starts: (role: Role) => string,
  cases: readonly Case[],
): string {
  return `_manifold() {
  local line="\${COMP_LINE:0:COMP_POINT}" words role= scheme= word previous=
  read -ra words <<< "$line"
  [[ "$line" == *[[:space:]] ]] && words+=("")
  local last=$(( \${#words[@]} - 1 )) i options=
  local cur="\${words[last]}"
  for (( i = 1; i < last; i++ )); do
    word="\${words[i]}"
    case "$previous" in
      --from) role=source; scheme="\${word%%:*}"; [[ "$word" == *:* ]] || scheme=file; [[ "$word" == - ]] && scheme=stdio ;;
      --to|--dead-letter) role=sink; scheme="\${word%%:*}"; [[ "$word" == *:* ]] || scheme=file; [[ "$word" == - ]] && scheme=stdio ;;
      *) [[ "$word" == --* ]] && role= && scheme= ;;
    esac
    previous="$word"
  done
  if [[ "$previous" == --from ]]; then options="${starts('source')}"
  elif [[ "$previous" == --to || "$previous" == --dead-letter ]]; then options="${starts('sink')}"
  elif [[ "$cur" == -* ]]; then options="${flags.join(' ')}"
  elif [[ $last -le 1 ]]; then options="${commands.join(' ')} ${flags.join(' ')}"
  else
    case "$role:$scheme" in
${cases.map(({ pattern, words }) => `      ${pattern.join('|')}) options="${words.join(' ')}" ;;`).join('\n')}
    esac
  fi
  COMPREPLY=( $(compgen -W "$options" -- "$cur") )
  if [[ "$previous" == --from || "$previous" == --to ]]; then COMPREPLY+=( $(compgen -f -- "\${cur#file:}") ); fi
  local cut="\${cur%"\${cur##*[:=]}"}"
  [[ "$COMP_WORDBREAKS" == *[:=]* && -n "$cut" ]] && COMPREPLY=( "\${COMPREPLY[@]#"$cut"}" )
  if [[ \${#COMPREPLY[@]} -eq 1 && "\${COMPREPLY[0]}" == *[=:./] ]]; then compopt -o nospace 2>/dev/null; fi
  return 0
}
complete -F _manifold manifold
`
}

/**
 * zsh has a script of its own: its arrays start at 1, and it does not split words at `:` and `=`. The script works from
 * a folder of $fpath and when it is sourced.
 */
function zsh(
  commands: readonly string[],
  flags: readonly string[],
  starts: (role: Role) => string,
  cases: readonly Case[],
): string {
  const list = (words: readonly string[]): string => words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ')
  return `#compdef manifold
_manifold() {
  local role= scheme= previous= word
  local -a options whole open
  integer i
  for (( i = 2; i < CURRENT; i++ )); do
    word=\${words[i]}
    case $previous in
      --from|--to|--dead-letter)
        [[ $previous == --from ]] && role=source || role=sink
        scheme=file
        [[ $word == *:* ]] && scheme=\${word%%:*}
        [[ $word == - ]] && scheme=stdio
        ;;
      *) [[ $word == --* ]] && role= scheme= ;;
    esac
    previous=$word
  done
  case $previous in
    --from) options=(${list(starts('source').split(' '))}) ;;
    --to|--dead-letter) options=(${list(starts('sink').split(' '))}) ;;
    *)
      if [[ \${words[CURRENT]} == -* ]]; then options=(${list(flags)})
      elif (( CURRENT == 2 )); then options=(${list([...commands, ...flags])})
      else
        case $role:$scheme in
${cases.map(({ pattern, words }) => `          ${pattern.join('|')}) options=(${list(words)}) ;;`).join('\n')}
        esac
      fi
      ;;
  esac
  # Words that somebody goes on typing get no blank behind them.
  open=(\${(M)options:#*[=:./]})
  whole=(\${options:#*[=:./]})
  compadd -S '' -- $open
  compadd -- $whole
  if [[ $previous == (--from|--to|--dead-letter) ]]; then
    compset -P 'file:'
    _files
  fi
}
if [[ \${funcstack[1]} == _manifold ]]; then _manifold "$@"; else compdef _manifold manifold; fi
`
}

function fish(
  commands: readonly string[],
  flags: readonly string[],
  starts: (role: Role) => string,
  cases: readonly Case[],
): string {
  return `function __manifold_words
  set -l role ''
  set -l scheme ''
  set -l previous ''
  for word in (commandline -opc)[2..-1]
    switch $previous
      case --from --to --dead-letter
        set role (test $previous = --from; and echo source; or echo sink)
        set scheme (string match -q -- '*:*' $word; and string split -m1 : -- $word)[1]
        test -z "$scheme"; and set scheme file
        test $word = -; and set scheme stdio
      case '*'
        if string match -q -- '--*' $word
          set role ''
          set scheme ''
        end
    end
    set previous $word
  end
  switch $previous
    case --from
      printf '%s\\n' ${starts('source')}
      return
    case --to --dead-letter
      printf '%s\\n' ${starts('sink')}
      return
  end
  switch "$role:$scheme"
${cases.map(({ pattern, words }) => `    case ${pattern.map((each) => `'${each}'`).join(' ')}\n      printf '%s\\n' ${words.map((word) => `'${word}'`).join(' ')}`).join('\n')}
  end
end
complete -c manifold -a '(__manifold_words)'
complete -c manifold -n __fish_use_subcommand -a '${commands.join(' ')}'
${flags.map((flag) => `complete -c manifold -l ${flag.slice(2)}`).join('\n')}
`
}
