/** Shells whose completion scripts the tests drive. */
'use strict'
const fs = require('fs')

const FOLDERS = ['/bin', '/usr/bin', '/usr/local/bin', '/opt/homebrew/bin']

/** @returns {string | undefined} the shell's file, where it is installed */
function shell(name) { return FOLDERS.map((folder) => `${folder}/${name}`).find((file) => fs.existsSync(file)) }

const kinds = {
  zsh: { get file() { return shell('zsh') }, needs: 'apt', package: 'zsh' },
  fish: { get file() { return shell('fish') }, needs: 'apt', package: 'fish' },
}

module.exports = { kinds, shell }
